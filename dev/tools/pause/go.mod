module mooring.dev/dev/tools/pause

go 1.24.0
