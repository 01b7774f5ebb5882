#!/bin/bash
# Tell how the job of a folder has ended.
[ "$(cat "$1/status")" = 0 ] && echo success || echo failed
