-- wrk knows TCP only. Where UNIX_SOCKET names a socket, the address that it was to connect to is replaced by that one.
local path = os.getenv("UNIX_SOCKET")
if not path then return end

local ffi = require("ffi")
ffi.cdef([[
struct sockaddr_un { unsigned short family; char path[108]; };
struct addrinfo {
	int flags, family, socktype, protocol;
	unsigned int addrlen;
	struct sockaddr_un *addr;
	char *canonname;
	struct addrinfo *next;
};
]])
local address = ffi.new("struct sockaddr_un", 1, path)

wrk.resolve = function()
	local found = wrk.lookup("127.0.0.1", "80")[1]
	local info = ffi.cast("struct addrinfo *", found)
	info.family, info.protocol, info.addrlen, info.addr = 1, 0, ffi.sizeof(address), address
	wrk.addrs = { found }
	return true
end
