-- Load for wrk, told by the environment: BODY (a file; none for a GET), HEADERS (a file of `name: value` lines), and
-- MODE: `misses` puts a new session id in place of SESSION every time, `callers` one of the keys in KEYS (a file).
local function read(name)
  local path = os.getenv(name)
  if not path or path == "" then return nil end
  local file = assert(io.open(path))
  local text = file:read("*a")
  file:close()
  return text
end

local mode, session = os.getenv("MODE"), os.getenv("SESSION")
for name, value in read("HEADERS"):gmatch("([^\n:]+): ([^\n]+)") do wrk.headers[name] = value end
wrk.body = read("BODY")
if wrk.body then wrk.method = "POST" end

if mode == "misses" then
  local from, to = wrk.body:find(session, 1, true)
  local before, after = wrk.body:sub(1, from - 1), wrk.body:sub(to + 1)
  local number = os.time() * 1000000
  function request()
    number = number + 1
    -- As long as SESSION, so that every answer is as long as the one that was checked.
    return wrk.format(nil, nil, nil, before .. string.format("%036d", number) .. after)
  end
elseif mode == "callers" then
  local requests = {}
  function init()
    for key in read("KEYS"):gmatch("[^\n]+") do
      wrk.headers["x-api-key"] = key
      requests[#requests + 1] = wrk.format()
    end
  end
  function request() return requests[math.random(#requests)] end
end

function done(summary, latency)
  local errors = summary.errors
  io.write(string.format(
    '@@{"requests":%d,"seconds":%f,"bytes":%d,"p50":%d,"p99":%d,"bad":%d}@@',
    summary.requests, summary.duration / 1e6, summary.bytes, latency:percentile(50), latency:percentile(99),
    errors.connect + errors.read + errors.write + errors.status + errors.timeout
  ))
end
