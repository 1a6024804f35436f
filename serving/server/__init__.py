"""The embedded development server: TF Serving's wire in Python, one concern a module.

status -> rapid_json, tensors -> json_requests, servable -> repository_watch -> grpc_service, rest.
`serving.server.local_server` puts them together.
"""
