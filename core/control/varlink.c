/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <string.h>

#include "control/client.h"
#include "util.h"

#define SERVICE "org.varlink.service"

const char control_node_description[] =
#include "control/io.weft.Node.inc"
        ;

/* The text that https://varlink.org/Service prescribes. */
static const char service_description[] =
        "# The Varlink Service Interface is provided by every varlink service. It describes the "
        "service "
        "and the interfaces it implements.\n"
        "interface org.varlink.service\n"
        "\n"
        "method GetInfo() -> (\n"
        "  vendor: string,\n"
        "  product: string,\n"
        "  version: string,\n"
        "  url: string,\n"
        "  interfaces: []string\n"
        ")\n"
        "\n"
        "method GetInterfaceDescription(interface: string) -> (description: string)\n"
        "\n"
        "error InterfaceNotFound (interface: string)\n"
        "error MethodNotFound (method: string)\n"
        "error MethodNotImplemented (method: string)\n"
        "error InvalidParameter (parameter: string)\n"
        "error PermissionDenied ()\n"
        "error ExpectedMore ()\n";

struct control_call {
        struct control_client *client;
        const char *method; /* full name */
        bool more, oneway, answered;
};

static void answer(struct control_call *call, json_t *message)
{
        call->answered = true;
        if (call->oneway)
                json_decref(message);
        else
                client_send(call->client, message);
}

void control_reply(struct control_call *call, json_t *parameters)
{
        answer(call, json_pack("{s:o}", "parameters", parameters ? parameters : json_object()));
}

void control_fail(struct control_call *call, const char *error, json_t *parameters)
{
        answer(call, json_pack("{s:s, s:o}", "error", error, "parameters",
                               parameters ? parameters : json_object()));
}

void control_invalid(struct control_call *call, const char *parameter)
{
        control_fail(call, SERVICE ".InvalidParameter", json_pack("{s:s}", "parameter", parameter));
}

bool control_wants_more(const struct control_call *call)
{
        return call->more;
}

const char *control_caller(const struct control_call *call)
{
        return call->client->access.who;
}

uid_t control_uid(const struct control_call *call)
{
        return call->client->access.uid;
}

void control_hold(struct control_call *call, uint64_t number)
{
        if (!call->oneway)
                call->client->held = number;
}

void control_stream(struct control_call *call, const struct control_stream *s)
{
        call->answered = true;
        client_begin_stream(call->client, s);
        varlink_continue(call->client);
}

void varlink_continue(struct control_client *c)
{
        bool last = false;
        json_t *parameters = c->stream.next(c->stream.data, &last);

        if (last) {
                c->stream.free(c->stream.data);
                c->stream = (struct control_stream) { 0 };
        }

        client_send(c, json_pack("{s:o, s:b}", "parameters", parameters, "continues", !last));
}

/* ---- org.varlink.service ------------------------------------------------------------------ */

static void get_info(struct control_call *call)
{
        const struct control_interface *i = client_interface(call->client);

        control_reply(call, json_pack("{s:s, s:s, s:s, s:s, s:[s, s]}", "vendor", "weft", "product",
                                      "weftd", "version", i->version, "url", "", "interfaces",
                                      SERVICE, i->name));
}

static void get_description(struct control_call *call, json_t *parameters)
{
        const struct control_interface *i = client_interface(call->client);
        const char *name = json_string_value(json_object_get(parameters, "interface"));

        if (!name)
                control_invalid(call, "interface");
        else if (strcmp(name, SERVICE) == 0)
                control_reply(call, json_pack("{s:s}", "description", service_description));
        else if (strcmp(name, i->name) == 0)
                control_reply(call, json_pack("{s:s}", "description", i->description));
        else
                control_fail(call, SERVICE ".InterfaceNotFound",
                             json_pack("{s:s}", "interface", name));
}

static bool call_service(struct control_call *call, const char *method, json_t *parameters)
{
        if (strcmp(method, "GetInfo") == 0)
                get_info(call);
        else if (strcmp(method, "GetInterfaceDescription") == 0)
                get_description(call, parameters);
        else
                return false;

        return true;
}

/* ---- dispatch ----------------------------------------------------------------------------- */

static bool call_own(struct control_call *call, const char *method, json_t *parameters)
{
        const struct control_interface *i = client_interface(call->client);

        for (const struct control_method *m = i->methods; m->name; m++) {
                if (strcmp(m->name, method) != 0)
                        continue;
                if (call->client->access.right < m->right)
                        control_fail(call, SERVICE ".PermissionDenied", NULL);
                else
                        m->f(i->data, call, parameters);
                return true;
        }

        return false;
}

/* A method's full name is INTERFACE.METHOD; the interface has dots of its own. */
static void dispatch(struct control_call *call, json_t *parameters)
{
        const struct control_interface *own = client_interface(call->client);
        const char *dot = strrchr(call->method, '.');
        size_t n = dot ? (size_t) (dot - call->method) : 0;
        bool known;

        if (dot && n == strlen(SERVICE) && strncmp(call->method, SERVICE, n) == 0)
                known = call_service(call, dot + 1, parameters);
        else if (dot && n == strlen(own->name) && strncmp(call->method, own->name, n) == 0)
                known = call_own(call, dot + 1, parameters);
        else {
                control_fail(call, SERVICE ".InterfaceNotFound",
                             json_pack("{s:s%}", "interface", call->method, n));
                return;
        }

        if (!known)
                control_fail(call, SERVICE ".MethodNotFound",
                             json_pack("{s:s}", "method", call->method));
}

void varlink_message(struct control_client *c, const char *text, size_t size)
{
        json_auto_t *message = json_loadb(text, size, JSON_REJECT_DUPLICATES, NULL);
        json_auto_t *nothing = json_object();
        json_t *parameters = json_object_get(message, "parameters");
        struct control_call call = {
                .client = c,
                .method = json_string_value(json_object_get(message, "method")),
                .oneway = json_is_true(json_object_get(message, "oneway")),
        };

        call.more = !call.oneway && json_is_true(json_object_get(message, "more"));
        if (!call.method ||
            (parameters && !json_is_object(parameters) && !json_is_null(parameters))) {
                c->broken = true;
                return;
        }

        c->refused = c->access.right == CONTROL_NOTHING;
        if (c->refused)
                control_fail(&call, SERVICE ".PermissionDenied", NULL);
        else
                dispatch(&call, json_is_object(parameters) ? parameters : nothing);
        if (!call.answered)
                control_fail(&call, SERVICE ".MethodNotImplemented",
                             json_pack("{s:s}", "method", call.method));
}
