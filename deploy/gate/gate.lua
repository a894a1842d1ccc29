-- Asks the gate of boxoffice whether a visitor may pass. Needs haproxy 2.5 or newer with Lua.
--
--   http-request lua.gate QUEUE ADDRESS
--
-- Sets txn.gate to `open`, to `wait`, with the address of the waiting page in txn.waiting, or to nothing, where
-- boxoffice did not answer.

-- What of the request tells whether there is a pass, and what is to be come back to.
local function told(txn)
    local headers = {}
    local function add(name, values)
        if values then
            local list = {}
            for index = 0, #values do
                list[#list + 1] = values[index]
            end
            headers[name] = list
        end
    end
    local asked = txn.http:req_get_headers()
    add("cookie", asked["cookie"])
    add("authorization", asked["authorization"])
    add("x-forwarded-host", asked["host"])
    headers["x-forwarded-uri"] = { txn.sf:pathq() }
    headers["x-forwarded-proto"] = { txn.sf:ssl_fc() == "1" and "https" or "http" }
    return headers
end

core.register_action("gate", { "http-req" }, function(txn, queue, address)
    local ok, answer = pcall(function()
        return core.httpclient():get({ url = address .. "/gate/" .. queue, headers = told(txn), timeout = 2000 })
    end)
    if not ok or not answer then
        return
    end
    if answer.status == 204 then
        txn:set_var("txn.gate", "open")
    elseif answer.status == 401 and answer.headers["location"] then
        txn:set_var("txn.waiting", answer.headers["location"][0])
        txn:set_var("txn.gate", "wait")
    end
end, 2)
