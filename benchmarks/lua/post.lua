-- A small body with each request.
dofile((debug.getinfo(1, "S").source:match("@(.*)post%.lua")) .. "get.lua")
wrk.method = "POST"
wrk.body = "name=value&other=thing"
wrk.headers["Content-Type"] = "application/x-www-form-urlencoded"
