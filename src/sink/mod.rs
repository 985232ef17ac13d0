//! Where alerts go. Each sink reads the store with a cursor of its own, so that a slow or dead one holds up nobody.
