-- How asynchronous invocations are run, and what invokes the function by itself, as JSON; NULL: as by default, and nothing.
ALTER TABLE functions ADD COLUMN async TEXT;
ALTER TABLE functions ADD COLUMN triggers TEXT;
