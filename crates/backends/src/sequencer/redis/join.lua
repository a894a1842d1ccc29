-- The next ARGV[2] numbers, all above ARGV[3]. KEYS[3] is the queue, KEYS[4] says that somebody
-- fetches a block; fewer than ARGV[4] left, and somebody should. One at a time: of two blocks that
-- are under way together the later one may come first, and then the other lies below what was given.
-- ARGV[5] is 1 where the store is
-- away, and the block may be extended without it: as long as every instance is here. One that is
-- not may have the store, and take the same numbers from there. What it may have taken before it was
-- missed, about ARGV[6], is left out.
local function all_here()
  local time = redis.call('TIME')
  for _, value in ipairs(redis.call('HVALS', KEYS[1] .. ':instances')) do
    local missed = time[1] - tonumber(string.match(value, '^%d+')) / 1000
    if missed > 4 and missed < 600 then return false end
  end
  return true
end
local function fetch()
  return redis.call('SET', KEYS[4], '1', 'NX', 'PX', 1000) and 1 or 0
end
local count, at_least = tonumber(ARGV[2]), tonumber(ARGV[3])
local q = load(KEYS[3])
local before = q.next
if at_least > q.next then q.next = at_least end
settle(q)
if q.limit > 0 and q.next + count > q.limit and q.limit2 > 0 then
  if q.first2 ~= q.limit + 1 then
    -- A gap: a batch is not torn in two, so the rest of the block stays empty.
    q.next = math.max(q.next, q.first2 - 1)
  end
  q.limit, q.first2, q.limit2 = q.limit2, 0, 0
end
if q.limit == 0 then
  save(KEYS[3], q)
  return { 'SHORT', q.next, fetch() }
end
if q.next + count > q.limit then
  if ARGV[5] ~= '1' or not all_here() then
    save(KEYS[3], q)
    return { 'SHORT', q.limit, fetch() }
  end
  if q.loose == 0 then q.next = q.limit + tonumber(ARGV[6]) end
  q.limit, q.loose = q.next + count, 1
end
local first = q.next + 1
q.next = q.next + count
q.given = q.given + count
save(KEYS[3], q)
local left = q.limit - q.next
if q.limit2 > 0 then left = left + q.limit2 - q.first2 + 1 end
return { 'OK', first, left < tonumber(ARGV[4]) and fetch() or 0, first - 1 - before }
