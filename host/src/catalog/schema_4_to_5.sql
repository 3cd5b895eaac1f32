-- How asynchronous invocations are run, as JSON; NULL: as by default.
ALTER TABLE functions ADD COLUMN async TEXT;
