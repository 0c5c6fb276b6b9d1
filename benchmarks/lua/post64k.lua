-- A body of 64 kB with each request.
dofile((debug.getinfo(1, "S").source:match("@(.*)post64k%.lua")) .. "get.lua")
wrk.method = "POST"
wrk.body = string.rep("x", 65536)
wrk.headers["Content-Type"] = "application/octet-stream"
