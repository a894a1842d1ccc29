-- POST a join; the user id goes round 1 to 1000, the users of the demo data.
local requests = {}
local next_request = 0
local users = 1000

function init(_)
  local headers = { ["Content-Type"] = "application/json", ["accept"] = "application/json" }
  for user = 1, users do
    requests[user] = wrk.format("POST", "/api/v1/waiting-queues", headers, '{"userId":' .. user .. '}')
  end
end

function request()
  next_request = next_request % users + 1
  return requests[next_request]
end
