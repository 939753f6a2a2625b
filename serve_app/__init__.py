"""HTTP in, library call, HTTP out: the service on Ray Serve. No rule about lists lives here."""
