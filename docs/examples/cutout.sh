#!/bin/sh
# A picture in, the person alone out: cutout.sh me.jpg cutout.png
#
# SERVER is the service's page (http://localhost:8080 by default), TOKEN its token and CA its PEM file, where it has them.
set -eu
curl --fail-with-body --silent --show-error \
  ${CA:+--cacert "$CA"} ${TOKEN:+-H "Authorization: Bearer $TOKEN"} \
  -F "image=@$1" "${SERVER:-http://localhost:8080}/v1/segment?mode=cutout" -o "$2"
