-- Wraps the script WRK_SCRIPT and writes every status that came, as "STATUS code count". Slower than
-- the script alone, so only for the runs that check answers, not for those that measure.
dofile(os.getenv("WRK_SCRIPT"))

-- A global, for done() to read it out of the thread that counted.
statuses = {}
local look, finish = response, done

function response(status, headers, body)
  statuses[status] = (statuses[status] or 0) + 1
  if look then look(status, headers, body) end
end

local threads = {}
function setup(thread) threads[#threads + 1] = thread end

function done(summary, latency, requests)
  if finish then finish(summary, latency, requests) end
  for _, thread in ipairs(threads) do
    for status, count in pairs(thread:get("statuses")) do
      print(string.format("STATUS %d %d", status, count))
    end
  end
end
