#!/bin/sh
# Replays the sample logs in an endless loop, RATE events per second, each with a unique audit id and the current time, as an apiserver
# would write it. Writes to standard output, for Kafka's console producer.
set -eu
cd "${SAMPLES:-/samples}"
round=0
while true; do
  for log in *.log.gz; do
    round=$((round + 1))
    gunzip -c "$log" | awk -v rate="${RATE:-50}" -v round="$round" '
      {
        if (count++ % rate == 0) {
          if (count > 1) { fflush(); system("sleep 1") }
          now = strftime("%Y-%m-%dT%H:%M:%S", systime()) ".000000Z"
        }
        id = sprintf("\"auditID\":\"%08x", round % 4294967296)
        sub(/"auditID":"[0-9a-f][0-9a-f][0-9a-f][0-9a-f][0-9a-f][0-9a-f][0-9a-f][0-9a-f]/, id)
        sub(/"requestReceivedTimestamp":"[^"]*"/, "\"requestReceivedTimestamp\":\"" now "\"")
        sub(/"stageTimestamp":"[^"]*"/, "\"stageTimestamp\":\"" now "\"")
        print
      }'
  done
done
