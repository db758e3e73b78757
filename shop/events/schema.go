package events

import "embed"

// Schemas has the schema of each topic as schema/TOPIC.json. Tests keep the files equal to the
// types of this package, and refuse changes that break running consumers. This writes them:
//
//	go test ./shop/events -update
//
//go:embed schema/*.json
var Schemas embed.FS

// schemas is the public address of the files.
const schemas = "https://github.com/kaptar/kaptar/blob/main/shop/events/schema/"
