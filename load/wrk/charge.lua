-- Charge points: PATCH the points of the users 1 to WRK_BUYERS, once each.
-- Then it writes EXHAUSTED to standard error and asks for /health/live only; the caller ends it.
local buyers = tonumber(os.getenv("WRK_BUYERS"))
local body = '{"amount":100000}'
local user, checked, exhausted = 0, false, nil

local function build(who)
  return wrk.format("PATCH", "/api/v1/users/" .. who .. "/points/charge",
    { ["Content-Type"] = "application/json", ["accept"] = "application/json" }, body)
end

function request()
  if exhausted then return exhausted end
  -- wrk asks for one request before the run, to look at it; it is never sent.
  if not checked then
    checked = true
    return build(1)
  end
  if user == buyers then
    io.stderr:write("EXHAUSTED\n")
    io.stderr:flush()
    exhausted = wrk.format("GET", "/health/live")
    return exhausted
  end
  user = user + 1
  return build(user)
end
