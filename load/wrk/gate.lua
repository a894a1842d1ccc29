-- GET WRK_PATH with the passes of the file WRK_PASSES in turn (one a line), as a proxy asks a gate.
-- Everything is built beforehand: the generator must not be what is measured.
local requests = {}
local count, next_request = 0, 0

function init(_)
  for pass in io.lines(os.getenv("WRK_PASSES")) do
    count = count + 1
    requests[count] = wrk.format("GET", os.getenv("WRK_PATH"), {
      ["cookie"] = "session=0123456789abcdef; boxoffice-pass=" .. pass,
      ["x-forwarded-uri"] = "/shop/?row=B",
      ["x-forwarded-proto"] = "https",
    })
  end
  if count == 0 then error("no pass in WRK_PASSES") end
end

function request()
  next_request = next_request % count + 1
  return requests[next_request]
end
