"""The roads: exchanges, queues, bindings, policies and permissions in RabbitMQ, and how to connect to it."""
