-- What a browser behind Caddy sends: eleven fields, of which five differ each time, and another path. A server that
-- remembers heads that come again has nothing to remember here.
dofile((debug.getinfo(1, "S").source:match("@(.*)varied%.lua")) .. "get.lua")
local number = 0
local fields = {}
request = function()
	number = number + 1
	fields["User-Agent"] = "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0"
	fields["Accept"] = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"
	fields["Accept-Language"] = "en-GB,en;q=0.7,de;q=0.3"
	fields["Accept-Encoding"] = "gzip, deflate, br"
	fields["Cookie"] = "session=" .. number .. "; theme=dark"
	fields["Referer"] = "https://www.example.com/items/" .. number
	fields["X-Request-Id"] = string.format("%016x", number)
	fields["Traceparent"] = string.format("00-%032x-%016x-01", number, number)
	fields["X-Forwarded-For"] = string.format("198.51.%d.%d", math.floor(number / 250) % 250, number % 250)
	fields["X-Forwarded-Proto"] = "https"
	return wrk.format("GET", "/items/" .. number .. "?page=" .. number % 7, fields)
end
