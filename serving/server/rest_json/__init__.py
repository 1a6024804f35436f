"""REST bodies, byte for byte as TF Serving reads and writes them: parser, requests, answers, messages."""
