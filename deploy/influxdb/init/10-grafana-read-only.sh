#!/bin/bash
# Runs once in the influxdb container, when the database is set up.
# Gives Grafana a user of the InfluxQL interface that can read the bucket and nothing else:
# whoever may look at a dashboard can send any request through its data source.
set -euo pipefail

influx v1 auth create \
    --org "$DOCKER_INFLUXDB_INIT_ORG" \
    --username grafana \
    --password "$GRAFANA_INFLUXDB_PASSWORD" \
    --read-bucket "$DOCKER_INFLUXDB_INIT_BUCKET_ID" \
    --description "Grafana: InfluxQL, read only"
