-- Wraps the script WRK_SCRIPT and writes every status that came, as "STATUS code count". Slower than
-- the script alone, so only for the runs that check answers, not for those that measure.
dofile(os.getenv("WRK_SCRIPT"))

-- A global, for done() to read it out of the thread that counted.
statuses = {}

function response(status, _, _)
  statuses[status] = (statuses[status] or 0) + 1
end

local threads = {}
function setup(thread) threads[#threads + 1] = thread end

function done(_, _, _)
  for _, thread in ipairs(threads) do
    for status, count in pairs(thread:get("statuses")) do
      print(string.format("STATUS %d %d", status, count))
    end
  end
end
