#!/bin/sh
# Name everything this machine lacks in one message. Usage: prerequisites.sh PYTHON [test]
python=$1
missing=""
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null ||
  missing="$missing
  - Python 3.11 or newer as \`$python\` (apt-get install python3; or: make PYTHON=/path/to/python3.11)"
"$python" -c 'import venv, ensurepip' 2>/dev/null ||
  missing="$missing
  - Python's venv module (apt-get install python3-venv)"
if [ -n "$missing" ]; then
  printf 'driftloop cannot be set up, this machine lacks:%s\n' "$missing" >&2
  exit 1
fi
wanted=""
java -version 2>&1 | grep -Eq 'version "(1[7-9]|[2-9][0-9])' || wanted="$wanted
  - JDK 17 or newer (apt-get install openjdk-17-jre-headless)"
command -v mvn >/dev/null 2>&1 || wanted="$wanted
  - Maven, which brings Apache Kafka (apt-get install maven)"
if [ "$2" = test ]; then
  command -v kcat >/dev/null 2>&1 || wanted="$wanted
  - kcat, the foreign client of the tests (apt-get install kcat)"
fi
if [ -n "$wanted" ]; then
  printf 'driftloop can run, but for a real Kafka broker this machine lacks:%s\nWithout them the demo uses the memory transport and tests that need them skip.\n' "$wanted" >&2
  [ -z "$CI" ] || exit 1
fi
exit 0
