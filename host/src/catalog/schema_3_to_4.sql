-- What callers of a function must show; NULL: what the host asks for by default.
ALTER TABLE functions ADD COLUMN auth TEXT;
