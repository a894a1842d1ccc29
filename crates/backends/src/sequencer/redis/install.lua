-- The store has handed out ARGV[2] to ARGV[3]. KEYS[3] is the queue, KEYS[4] says that somebody
-- fetches a block. A block that comes too late is dropped: numbers only rise.
local first, last = tonumber(ARGV[2]), tonumber(ARGV[3])
local q = load(KEYS[3])
redis.call('DEL', KEYS[4])
settle(q)
if first <= q.next then return { 'DROPPED' } end
if q.limit == 0 then
  q.next, q.limit = first - 1, last
elseif first == q.limit + 1 then
  -- Also where the block after it has come before it.
  q.limit = last
elseif first <= q.limit then
  return { 'DROPPED' }
elseif q.limit2 == 0 then
  q.first2, q.limit2 = first, last
elseif first == q.limit2 + 1 then
  q.limit2 = last
else
  return { 'DROPPED' }
end
-- It lies above all that was given, so the store's watermark is above that too.
q.loose = 0
save(KEYS[3], q)
return { 'OK' }
