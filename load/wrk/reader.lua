-- Seat list readers: GET WRK_PATH with the first token of WRK_TOKENS, each connection once per
-- WRK_DELAY_MS, as fans do who watch seats go.
local line
local delay_ms = tonumber(os.getenv("WRK_DELAY_MS"))

function init(_)
  for token in io.lines(os.getenv("WRK_TOKENS")) do
    line = wrk.format("GET", os.getenv("WRK_PATH"),
      { ["QUEUE-TOKEN"] = token, ["accept"] = "application/json", ["accept-encoding"] = "gzip" })
    break
  end
end

function request() return line end

function delay() return delay_ms end
