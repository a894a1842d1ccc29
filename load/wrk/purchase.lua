-- Reservations and payments in turn: every second request pays a reservation that was answered before.
-- The reservations are those of reserve.lua, found at WRK_RESERVE, with its variables. A payment spends its
-- ticket, so each session needs tokens of its own (WRK_TOKENS). One thread (-t1) only.
dofile(os.getenv("WRK_RESERVE"))

local host = wrk.host
local reserve = request
-- Who asked for a seat, by the first seat of the reservation: "token user".
local owners = {}
-- Reservations to be paid, oldest first.
local due, first, last = {}, 1, 0
local paying = false
local format = string.format

local prepare = init
function init(args)
  prepare(args)
  host = wrk.headers["Host"] or host
end

function request()
  if paying and first <= last then
    paying = false
    local payment = due[first]
    due[first] = nil
    first = first + 1
    return payment
  end
  paying = true
  local answer = reserve()
  local token, user, seat = answer:match('QUEUE%-TOKEN: (%S+).-"userId":(%d+),"seatIds":%[(%d+)')
  if seat then owners[seat] = token .. " " .. user end
  return answer
end

function response(status, _, body)
  if status ~= 201 then return end
  local reservation, seat = body:match('"reservationId":(%d+).-"seatId":(%d+)')
  local owner = seat and owners[seat]
  if not owner then return end
  owners[seat] = nil
  local token, user = owner:match("(%S+) (%d+)")
  local content = format('{"userId":%s,"reservationId":%s}', user, reservation)
  last = last + 1
  due[last] = format("POST /api/v1/payments HTTP/1.1\r\nHost: %s\r\naccept: application/json\r\n" ..
    "Content-Type: application/json\r\nQUEUE-TOKEN: %s\r\nContent-Length: %d\r\n\r\n%s", host, token, #content, content)
end
