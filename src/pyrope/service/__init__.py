"""The use cases: joins engine and storage; the only room that knows them all."""
