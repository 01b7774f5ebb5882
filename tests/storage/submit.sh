#!/bin/bash
# Run a job of cluster-generic in an empty folder beside the controller's; print it as the job's id.
folder=$(mktemp -d "$(dirname "$PWD")/node-XXXXXX")
cd "$folder" && bash "$1" > log 2>&1
echo $? > status
echo "$folder"
