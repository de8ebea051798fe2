"""`make bench-photos`: our INT8 beside its peers on networks with public weights and crops of photographs."""
