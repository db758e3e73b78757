package mutants

// schemas: what is read of an event, and what its data may become.
func schemas() []mutant {
	return []mutant{
		{
			"an event in structured mode has its own identity", "messaging/structured.go",
			"out.ID = e.headers.Get(driver.HeaderID); out.ID == \"\"", "out.ID = m.ID; out.ID == \"\"", "./messaging", "TestStructured",
		},
		{
			"partitionkey counts before subject", "messaging/structured.go",
			"{driver.HeaderSubject, \"ce-partitionkey\"}", "{\"ce-partitionkey\", driver.HeaderSubject}", "./messaging", "TestStructured",
		},
		{
			"headers beside a structured event are not believed", "messaging/structured.go",
			"!strings.HasPrefix(h.Name, \"ce-\") && h.Name", "h.Name", "./messaging", "TestStructured",
		},
		{
			"an event is in binary mode before inbox and order look at it", "messaging/consume.go",
			"arrive(&d, c.raw)", "d.Raw = c.raw", "./messaging", "TestEnvelopesOfOthers/nats",
		},
		{
			"the type of another topic is refused", "messaging/envelope.go",
			"v := d.Headers.Get(driver.HeaderType); v != d.Topic", "v := d.Headers.Get(driver.HeaderType); v == \"\"", "./messaging", "TestHostileEnvelopes/memory",
		},
		{
			"a protobuf message keeps fields that nobody here knows", "messaging/envelope.go",
			"proto.Unmarshal(d.Data, message)", "proto.UnmarshalOptions{DiscardUnknown: true}.Unmarshal(d.Data, message)", "./messaging", "TestProtobuf",
		},
		{
			"an event of an earlier version keeps its identity", "messaging/upcast.go",
			"Event[New]{ID: old.ID,", "Event[New]{ID: old.ID + \"'\",", "./messaging", "TestOlderVersionRefused",
		},
		{
			"old consumers are thought of", "messaging/schema/compare.go",
			"c.reads(roots, p, \"\", oldConsumers)", "clear(c.seen)", "./messaging/schema", "TestCompare",
		},
		{
			"new consumers are thought of", "messaging/schema/compare.go",
			"c.reads(roots, p, \"\", newConsumers)", "clear(c.seen)", "./messaging/schema", "TestCompare",
		},
		{
			"a breaking change of the shop's events is found", "shop/events/events.go",
			"`json:\"total_cents\"`", "`json:\"total\"`", "./shop/events", "TestSchemas",
		},
	}
}
