"""`avgn serve`: a page that localizes the visitor's camera and microphone, and the WebSocket behind it."""
