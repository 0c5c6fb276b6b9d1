dofile((debug.getinfo(1, "S").source:match("@(.*)get%.lua")) .. "unix.lua")
-- wrk calls this when it is done. One line of JSON, times in microseconds.
done = function(summary, latency, requests)
	local e = summary.errors
	io.write(string.format(
		'\nRESULT {"requests": %d, "duration_us": %d, "bytes": %d, "errors": %d, "statuses": %d, "p50_us": %d, "p99_us": %d, "p999_us": %d, "max_us": %d}\n',
		summary.requests, summary.duration, summary.bytes,
		e.connect + e.read + e.write + e.timeout, e.status,
		latency:percentile(50), latency:percentile(99), latency:percentile(99.9), latency.max))
end
