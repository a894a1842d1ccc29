-- POST a join; the user id goes round 1 to 1000, the users of the demo data. With WRK_PEOPLE, a file with the bearer
-- token of a person in each line, they join one after another, each by their token.
local requests = {}
local next_request = 0
local users = 1000

function init(_)
  local headers = { ["Content-Type"] = "application/json", ["accept"] = "application/json" }
  local people = os.getenv("WRK_PEOPLE")
  if people then
    users = 0
    for token in io.lines(people) do
      users = users + 1
      headers["Authorization"] = "Bearer " .. token
      requests[users] = wrk.format("POST", "/api/v1/waiting-queues", headers, "{}")
    end
    return
  end
  for user = 1, users do
    requests[user] = wrk.format("POST", "/api/v1/waiting-queues", headers, '{"userId":' .. user .. '}')
  end
end

function request()
  next_request = next_request % users + 1
  return requests[next_request]
end
