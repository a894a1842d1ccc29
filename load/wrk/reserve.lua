-- POST reservations, each for seats that no other request asks for.
--   WRK_CONCERT            concert id
--   WRK_SESSIONS           "session:firstSeat:seats,…": seats of a session have consecutive ids
--   WRK_SEATS_PER_REQUEST  seats of one reservation
--   WRK_BUYERS             request n is made by user n of so many, whose token is bench_n
--   WRK_TOKENS             "prefix,…", one for each session: there the token of user n is prefix .. n
--   WRK_DELAY_MS           pause of a connection between its requests, 0 for none
--   WRK_REPEAT             1: ask for the first seats of the first session for ever (rejections)
-- When no seat is left it writes EXHAUSTED to standard error and from then on asks for /health/live
-- only, so that what is still on its way can be answered; the caller ends it. At the end it writes
-- "LATENCY percentile microseconds". One thread (-t1) only.
local host = wrk.host
local concert = os.getenv("WRK_CONCERT")
local per_request = tonumber(os.getenv("WRK_SEATS_PER_REQUEST"))
local buyers = tonumber(os.getenv("WRK_BUYERS"))
local delay_ms = tonumber(os.getenv("WRK_DELAY_MS") or "0")
local repeating = os.getenv("WRK_REPEAT") == "1"
local prefixes, sessions = {}, {}
local index, offset, user = 1, 0, 0
local format, concat = string.format, table.concat

for id, first, count in os.getenv("WRK_SESSIONS"):gmatch("(%d+):(%d+):(%d+)") do
  sessions[#sessions + 1] = { id = id, first = tonumber(first), count = tonumber(count) }
end
for prefix in (os.getenv("WRK_TOKENS") or ""):gmatch("[^,]+") do prefixes[#prefixes + 1] = prefix end
for n, session in ipairs(sessions) do session.prefix = prefixes[n] or "bench_" end

local function build(session, first, who)
  local seats = {}
  for n = 1, per_request do seats[n] = format("%d", first + n - 1) end
  local body = format('{"userId":%d,"seatIds":[%s]}', who, concat(seats, ","))
  return format("POST /api/v1/concerts/%s/sessions/%s/reservations HTTP/1.1\r\nHost: %s\r\n" ..
    "accept: application/json\r\nContent-Type: application/json\r\nQUEUE-TOKEN: %s%d\r\n" ..
    "Content-Length: %d\r\n\r\n%s", concert, session.id, host, session.prefix, who, #body, body)
end

function init(_)
  host = wrk.headers["Host"] or host
end

local checked, exhausted = false, nil
function request()
  if exhausted then return exhausted end
  local session = sessions[index]
  -- wrk asks for one request before the run, to look at it; it is never sent.
  if repeating or not checked then
    checked = true
    user = user % buyers + 1
    return build(session, session.first, user)
  end
  while session and offset + per_request > session.count do
    index, offset = index + 1, 0
    session = sessions[index]
  end
  if not session then
    io.stderr:write("EXHAUSTED\n")
    io.stderr:flush()
    exhausted = format("GET /health/live HTTP/1.1\r\nHost: %s\r\n\r\n", host)
    return exhausted
  end
  local answer = build(session, session.first + offset, user)
  user = user % buyers + 1
  offset = offset + per_request
  return answer
end

if delay_ms > 0 then
  function delay() return delay_ms end
end

function done(_, latency, _)
  for _, percentile in ipairs({ 50, 99 }) do
    print(format("LATENCY %d %d", percentile, latency:percentile(percentile)))
  end
end
