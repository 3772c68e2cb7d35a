"""A gRPC and GraphQL gateway in front of Emporix's Session Context REST service."""
