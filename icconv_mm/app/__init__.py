"""The application: what the command ``icconv`` does. Nothing outside imports it, but the faces."""
