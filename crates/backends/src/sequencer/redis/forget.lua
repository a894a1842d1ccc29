-- The ticket with the number ARGV[3] (5 bytes) in the field ARGV[2] of KEYS[4] is over.
local found = redis.call('HGET', KEYS[4], ARGV[2])
if found and string.sub(found, 1, 5) == ARGV[3] then redis.call('HDEL', KEYS[4], ARGV[2]) end
return { 'OK' }
