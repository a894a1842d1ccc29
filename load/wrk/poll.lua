-- GET WRK_PATH with the tokens of the file WRK_TOKENS in turn (one a line).
-- Everything is built beforehand: the generator must not be what is measured.
local requests = {}
local count, next_request = 0, 0

function init(_)
  local extra = os.getenv("WRK_ETAG")
  for token in io.lines(os.getenv("WRK_TOKENS")) do
    local headers = { ["QUEUE-TOKEN"] = token, ["accept"] = "application/json", ["accept-encoding"] = "gzip" }
    if extra and extra ~= "" then headers["if-none-match"] = extra end
    count = count + 1
    requests[count] = wrk.format("GET", os.getenv("WRK_PATH"), headers)
  end
  if count == 0 then error("no token in WRK_TOKENS") end
end

function request()
  next_request = next_request % count + 1
  return requests[next_request]
end
