-- Tickets that people have shown, each for ARGV[2] seconds: the field of KEYS[4] and so on that has their
-- ticket, the number of this one (5 bytes), that of one that it replaces, and what is kept behind the number.
-- Answers what is kept of those who have another one.
local kept = {}
for i = 1, (#ARGV - 2) / 4 do
  local field, seq = ARGV[4 * i - 1], ARGV[4 * i]
  local found = redis.call('HGET', KEYS[3 + i], field)
  local other = found and string.sub(found, 1, 5)
  if found and other ~= seq and other ~= ARGV[4 * i + 1] then
    kept[i] = found
  else
    if other ~= seq then redis.call('HSET', KEYS[3 + i], field, seq .. ARGV[4 * i + 2]) end
    redis.call('EXPIRE', KEYS[3 + i], ARGV[2])
    kept[i] = ''
  end
end
return { 'OK', gen, kept }
