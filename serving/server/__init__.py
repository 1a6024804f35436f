"""The embedded development server: TF Serving's wire in Python, one concern a module.

status -> rest_json, servable -> repository_watch -> prediction_api -> grpc_service, rest_api -> http_server.
`serving.server.local_server` puts them together.
"""
