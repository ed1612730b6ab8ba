/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */

/* An engine that does nothing but run the chains: what a stage leaves in the mark, and which of the
 * engine's own programs ended the run, is all there is to see. A mark of 1 asks for a known flow;
 * its highest byte is the early stages'. */

#define WEFT_ENGINE
#include <weft/stage.bpf.h>

const volatile __u32 weft_generation, weft_hz, weft_mark;
const volatile __u8 weft_can_cast, weft_count_lookups, weft_track, weft_takes_dsr;
const volatile __u16 weft_host_low, weft_host_high, weft_given_low, weft_given_high;
const volatile __u32 weft_first[WEFT_HOOKS], weft_first_known[WEFT_HOOKS];
const volatile __u32 weft_first_early[WEFT_HOOKS];
const volatile __u8 weft_has_stages[WEFT_HOOKS];
const volatile __u8 weft_serves[WEFT_HOOKS];
const volatile __u32 weft_half_open, weft_overlay_index;
const volatile __u8 weft_tunnels, weft_can_decap;
const volatile struct weft_tunnel_header weft_header;

char _license[] SEC("license") = "Dual BSD/GPL";

/* Every constant the core has set, for the tests to read. */
struct seen {
        __u32 generation, hz, mark, half_open;
        __u16 host_low, host_high;
        __u8 can_cast, track, takes_dsr, has_stages[WEFT_HOOKS], serves[WEFT_HOOKS];
};
WEFT_MAP(BPF_MAP_TYPE_ARRAY, seen, __u32, struct seen, 1, 0);

static __always_inline void tell(void)
{
        __u32 zero = 0;
        struct seen *s = bpf_map_lookup_elem(&seen, &zero);

        if (!s)
                return;
        s->generation = weft_generation;
        s->hz = weft_hz;
        s->mark = weft_mark;
        s->half_open = weft_half_open;
        s->host_low = weft_host_low;
        s->host_high = weft_host_high;
        s->can_cast = weft_can_cast;
        s->track = weft_track;
        s->takes_dsr = weft_takes_dsr;
        for (int i = 0; i < WEFT_HOOKS; i++) {
                s->has_stages[i] = weft_has_stages[i];
                s->serves[i] = weft_serves[i];
        }
}

#define ENTRY(name, hook)                                                                          \
        SEC("tc")                                                                                  \
        int name(struct __sk_buff *ctx)                                                            \
        {                                                                                          \
                struct weft_pkt *pkt = weft_packet();                                              \
                                                                                                   \
                if (!pkt)                                                                          \
                        return 1;                                                                  \
                tell();                                                                            \
                pkt->known = (ctx->mark & 0xffffff) == 1;                                          \
                pkt->plan = (struct weft_plan) {};                                                 \
                ctx->mark &= 0xff000000;                                                           \
                if (pkt->known)                                                                    \
                        weft_tail_call(ctx, weft_first_known[hook]);                               \
                else                                                                               \
                        weft_tail_call(ctx, weft_first[hook]);                                     \
                return 2;                                                                          \
        }

ENTRY(weft_from_endpoint, WEFT_FROM_ENDPOINT)
ENTRY(weft_to_endpoint, WEFT_TO_ENDPOINT)
ENTRY(weft_from_uplink, WEFT_FROM_UPLINK)
ENTRY(weft_to_uplink, WEFT_TO_UPLINK)

#define EARLY_ENTRY(name, hook)                                                                    \
        SEC("tc")                                                                                  \
        int name(struct __sk_buff *ctx)                                                            \
        {                                                                                          \
                weft_tail_call(ctx, weft_first_early[hook]);                                       \
                return 3;                                                                          \
        }

EARLY_ENTRY(weft_early_from_endpoint, WEFT_FROM_ENDPOINT)
EARLY_ENTRY(weft_early_from_uplink, WEFT_FROM_UPLINK)

SEC("xdp")
int weft_xdp_pass(struct xdp_md *ctx __attribute__((unused)))
{
        return XDP_PASS;
}

SEC("xdp")
int weft_xdp(struct xdp_md *ctx __attribute__((unused)))
{
        return XDP_PASS;
}

#define WEFT_SLOT(name, program)                                                                   \
        SEC("tc")                                                                                  \
        int program(struct __sk_buff *ctx __attribute__((unused)))                                 \
        {                                                                                          \
                return 100 + WEFT_SLOT_##name;                                                     \
        }
#include <weft/slots.def>
#undef WEFT_SLOT
