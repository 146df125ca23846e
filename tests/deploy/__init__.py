"""Tests of the container image, docker-compose.yml and the Grafana dashboard."""
