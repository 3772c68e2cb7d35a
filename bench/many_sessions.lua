-- wrk: reads of session contexts by GraphQL, of as many sessions as SESSIONS says, each thread in an order of its own.
local sessions = tonumber(os.getenv("SESSIONS") or "10000")
local query = '{"query":"query($s: ID!) { sessionContext(tenant: \\"acme\\", sessionId: $s) { sessionId siteCode currency'
  .. ' targetLocation language customerId cartId context metadata { version } } }","variables":{"s":"bench-%05d"}}'
local at, step = 0, 7919 -- coprime to the number of sessions: all of them, in no order that a cache might like

function init()
  wrk.method = "POST"
  wrk.headers["content-type"] = "application/json"
  at = math.random(sessions)
end

function request()
  at = (at + step) % sessions
  return wrk.format(nil, nil, nil, string.format(query, at))
end

local failed = 0
function response(status, _, body)
  if status ~= 200 or body:find('"errors"', 1, true) or not body:find('"bench-', 1, true) then failed = failed + 1 end
end

function done(summary)
  io.write(string.format("requests %d errors %d\n", summary.requests, summary.errors.status + summary.errors.read
    + summary.errors.connect + summary.errors.timeout + summary.errors.write))
end
