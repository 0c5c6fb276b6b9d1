-- No two requests alike: another path, query, cookie and request id each time. A server that remembers heads that
-- come again has nothing to remember here.
dofile((debug.getinfo(1, "S").source:match("@(.*)varied%.lua")) .. "get.lua")
local number = 0
local fields = {}
request = function()
	number = number + 1
	fields["Cookie"] = "session=" .. number .. "; theme=dark"
	fields["X-Request-Id"] = string.format("%016x", number)
	fields["User-Agent"] = "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0"
	fields["Accept"] = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"
	fields["Accept-Language"] = "en-GB,en;q=0.7,de;q=0.3"
	fields["Accept-Encoding"] = "gzip, deflate, br"
	return wrk.format("GET", "/?number=" .. number, fields)
end
