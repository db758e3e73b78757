package events

import "embed"

// Schemas has what is published to each topic, as schema/TOPIC.json. Tests keep the files equal to the
// types of this package, and refuse changes that running consumers could not live with:
//
//	go test ./shop/events -update
//
//go:embed schema/*.json
var Schemas embed.FS

// schemas is where the files of Schemas are for others.
const schemas = "https://github.com/kaptar/kaptar/blob/main/shop/events/schema/"
