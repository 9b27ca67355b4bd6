"""What answers: a model here, a server, or the machines themselves."""
