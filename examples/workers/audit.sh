#!/bin/sh
# Keeps in the space audit, by id, when each commit was written.
read -r hello && echo '{"batchlog":1}'
while read -r window; do
	printf '%s\n' "$window" | awk '{
		for (; match($0, /[{]"id":[0-9]+,"time":"[^"]*"/); $0 = substr($0, RSTART + RLENGTH)) {
			split(substr($0, RSTART + 6, RLENGTH - 6), commit, /,"time":/)
			ops = ops comma "{\"put\":{\"space\":\"audit\",\"key\":" commit[1] ",\"value\":" commit[2] "}}"
			comma = ","
		}
		print "{\"ops\":[" ops "]}"
	}'
done
